"""The way of items from one place to another: `move`, `import` and `export`.

Owns the places that items come from (`Source`) and go to (`Target`), and the loop between them, with one promise: an
item is confirmed where it came from only after the place it went to has answered that it has it. So nothing is lost
when this ends in between, however it ends; what was on its way then is there twice. Nothing here prints: progress is
told to a function that the caller gives.
"""
