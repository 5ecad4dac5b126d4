from cvae_jax.cli.parser import run

run()
