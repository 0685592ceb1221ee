"""One loaded model: what every engine offers, the local one, and how it is loaded."""
