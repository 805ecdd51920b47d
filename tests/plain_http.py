"""Call servers on this machine with httpx, without loading a list of authorities for each call.

Loading it takes more processor time than all else in a call, and http:// needs none.
"""

import ssl
from functools import partial

import httpx

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx.get, verify=NO_AUTHORITIES)
post = partial(httpx.post, verify=NO_AUTHORITIES)
put = partial(httpx.put, verify=NO_AUTHORITIES)
delete = partial(httpx.delete, verify=NO_AUTHORITIES)
options = partial(httpx.options, verify=NO_AUTHORITIES)
stream = partial(httpx.stream, verify=NO_AUTHORITIES)
request = partial(httpx.request, verify=NO_AUTHORITIES)
Client = partial(httpx.Client, verify=NO_AUTHORITIES)
AsyncClient = partial(httpx.AsyncClient, verify=NO_AUTHORITIES)
