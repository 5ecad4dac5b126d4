from cvae_jax.cli import run

run()
