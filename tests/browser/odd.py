"""What other people write into rows, columns and answers."""

LONG = "an answer without an end " * 60
UNBROKEN = "x" * 400
RIGHT_TO_LEFT = "שלום עולם: مرحبا ٤٢ %"
MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script></script>"
TEX = r"A & B_1 50% $\frac$ {x} #1 ~ ^ \input{/etc/passwd}"
ODD = (LONG, UNBROKEN, RIGHT_TO_LEFT, MARKUP, TEX, "]]> --> &amp; \" ' `", "\u202egnp.exe", "\x1b[31mred\x00")
