"""An app that needs this project and ships it."""

import modal

from gx.core import errors

app = modal.App("complete")


@app.cls(image=modal.Image.debian_slim().add_local_python_source("gx"))
class Worker:
    @modal.method()
    async def place(self) -> str:
        return str(errors.__file__)
