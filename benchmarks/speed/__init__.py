"""How fast it is, beside what people use and beside what the machine can do: see __main__."""
