"""`python -m trading_api`: the manager's command line."""

from trading_api.manager.cli import main

if __name__ == "__main__":
    main()
