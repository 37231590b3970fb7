"""Health check of a container: `python -m ops.deploy.healthcheck [PATH]` exits with 0 if the role answers 200 on PATH.

It imports the standard library only, because it runs every few seconds. A worker and the history answer on
ATTN_METRICS_PORT, an edge on ATTN_PORT.
"""

import os
import sys
import urllib.request

if __name__ == "__main__":
    port = os.environ.get("ATTN_METRICS_PORT") or os.environ.get("ATTN_PORT") or "8080"
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=3) as answer:
            sys.exit(0 if answer.status == 200 else 1)
    except OSError as error:
        sys.exit(f"{path} on port {port}: {error}")
