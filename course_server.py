"""An extension of the Jupyter server: the demos answer a slider sooner.

The answer to a move is several small messages. By default, the server's end of the connection
groups small messages (Nagle's algorithm): the second may wait until the browser has acknowledged
the first, which it puts off by some 40 ms; half of the pictures did. Here nothing waits.

`course.py` enables it (`NO_DELAY`).
"""


def _jupyter_server_extension_points():
    return [{"module": "course_server"}]


def _load_jupyter_server_extension(server):
    settings = server.web_app.settings

    class PromptConnection(settings["kernel_websocket_connection_class"]):
        """Between a kernel and a browser, without delay."""

        def connect(self):
            self.websocket_handler.set_nodelay(True)
            return super().connect()

    settings["kernel_websocket_connection_class"] = PromptConnection
