"""Is the server well? For the container's health check:  python healthcheck.py http://127.0.0.1:22180/health/live

Exit status 0: yes. 1: no, and the reason is printed.
"""

import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

try:
    with urlopen(sys.argv[1], timeout=4) as answer:
        print(answer.read().decode())
except HTTPError as error:
    sys.exit(error.read().decode(errors="replace"))
except (URLError, OSError) as error:
    sys.exit(f"no answer: {error}")
