"""Comparisons: with other servers, with another checkout, and of features with what they are built on."""
