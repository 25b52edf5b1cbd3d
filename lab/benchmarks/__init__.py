"""Speed against TRL and against the device's limit."""
