"""The version of crabrt; the build reads it here."""

VERSION = "0.1.0"
