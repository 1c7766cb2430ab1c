"""Wherefrom in company: one small module for each package it works with, imported only by those who use it."""
