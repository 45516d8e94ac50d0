"""The demonstration: one load, FCFS and LAPS-SD, on a real SGLang worker under the real service."""
