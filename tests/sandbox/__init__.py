"""Tests of the emulated store, over real HTTP and without the client it is made for."""
