"""What a session owns, and how it is removed however the process ends."""
