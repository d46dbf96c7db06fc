"""Comparisons: with other servers, with another checkout, of features with the plain thing."""
