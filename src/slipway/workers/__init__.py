"""Several worker processes behind one port: `slipway serve --workers N`.

`supervising` starts the workers and starts a dead one again, `listening` gives each a socket of
the same port, `channel` carries calls between them and the supervisor, and `board` is memory that
all of them share. The first worker keeps the documents and the store; what needs them is sent to it
(`web/relay.py`).
"""

from slipway.workers.board import Board
from slipway.workers.channel import Channel, ChannelError
from slipway.workers.listening import bind_all, bind_inner
from slipway.workers.supervising import Place, Supervisor

__all__ = ["Board", "Channel", "ChannelError", "Place", "Supervisor", "bind_all", "bind_inner"]
