"""Maps of latents to bytes: each symbol's distribution follows from its neighbours, in integers."""
