"""`python -m journey_bandit`: the command line."""

from journey_bandit.main import main

if __name__ == "__main__":
    main()
