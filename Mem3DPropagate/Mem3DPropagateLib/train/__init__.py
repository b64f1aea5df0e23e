"""Training of our own propagation network: subjects, episodes drawn from them, learning, the task and its state."""
