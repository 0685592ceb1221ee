"""What whole runs say: sweeps over settings, agreement between modes."""
