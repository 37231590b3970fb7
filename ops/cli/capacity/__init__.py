"""What an installation needs for a load: a calculator and a simulation from measured unit costs."""
