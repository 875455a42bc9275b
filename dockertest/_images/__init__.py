"""Images: pull, build, and the credentials for registries."""
