# Makes C string literals of a text's lines.
s/\\/\\\\/g
s/"/\\"/g
s/.*/"&\\n"/
