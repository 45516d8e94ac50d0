"""Lets real SGLang run on any CPU: import stubs, and a plugin that opens SGLang's own CPU gates."""
