"""Entry point of `python -m journey_bandit`: the same command line as the script `journey-bandit`."""

from journey_bandit.main import main

if __name__ == "__main__":
    main()
