"""The version of the installed distribution; the checkout's own when it is not installed."""

VERSION = "0.1.0"
