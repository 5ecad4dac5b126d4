"""Dense latents to bytes: each image belongs to a component, with a table for each latent."""
