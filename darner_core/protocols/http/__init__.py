"""HTTP: the API under /api/v1, health, metrics, and the files of the page.

A Falcon application for WSGI. It does not know sockets, nor how HTTP is read: `server.http_listener` does, and hands it
each request with the client's connection. It may be imported only where a listener speaks HTTP, because Falcon is
installed only with `darner[http]`.
"""
