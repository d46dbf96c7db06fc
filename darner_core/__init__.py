"""Darner: a durable message-queue server that speaks the memcache text protocol."""

NAME = "darner"
VERSION = "1.0.0"
