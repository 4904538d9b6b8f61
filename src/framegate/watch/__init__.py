"""Cameras that are watched: sources that are pulled, their health, alerts, and where those go."""
