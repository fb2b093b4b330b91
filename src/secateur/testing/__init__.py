"""Tests that ship: the contract of a method, and small models with every kind of wiring."""

from secateur.testing.contract import check_method as check_method
from secateur.testing.toys import toys as toys
