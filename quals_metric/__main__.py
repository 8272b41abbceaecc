"""`python -m quals_metric` is the command `quals`."""

from quals_metric.cli import main

if __name__ == "__main__":
    main()
