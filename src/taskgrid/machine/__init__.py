"""What the machine gives: devices, memory, time, and how progress is told."""
