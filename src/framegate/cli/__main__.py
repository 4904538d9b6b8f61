"""`python -m framegate.cli ...`: the command line where its script is not on the path."""

from framegate.cli import main

main()
