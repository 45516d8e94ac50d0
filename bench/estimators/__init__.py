"""What the predictors' constants rest on: rival estimates side by side, on made-up requests."""
