"""How good a representation is while it is trained: numbers, pictures, and what they are made of.

The hooks of :mod:`vito_mm.engine.hooks` call it; nothing in here knows a runner.
"""
