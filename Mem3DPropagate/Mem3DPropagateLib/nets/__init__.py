"""Networks that look at the image: memory networks as published, and our own. Their modules need torch."""
