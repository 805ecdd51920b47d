"""Call a server with one client library: chat, stream, tool call. Prints what came back as JSON.

    python python_clients.py CLIENT http://127.0.0.1:8080/v1

It runs in an environment of its own, see `make clients`.
"""

import json
import sys
from collections.abc import Callable

KEY, MODEL, PROMPT = "sw-key-of-tests", "m", "Say hello."
WEATHER = "What is the weather in Oslo?"
Found = dict[str, object]


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


def with_openai(url: str) -> Found:
    import openai

    client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    messages = [{"role": "user", "content": PROMPT}]
    chat = client.chat.completions.create(model=MODEL, messages=messages)
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    parts = list(stream)
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    asked = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    call = asked.choices[0].message.tool_calls[0]
    return {
        "chat": chat.choices[0].message.content,
        "stream": "".join(p.choices[0].delta.content or "" for p in parts if p.choices),
        "usage": parts[-1].usage.total_tokens,
        "tool": [call.function.name, json.loads(call.function.arguments)],
    }


def with_langchain(url: str) -> Found:
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=url, api_key=KEY, model=MODEL, max_retries=0)
    called = model.bind_tools([tool(weather)]).invoke(WEATHER).tool_calls[0]
    return {
        "chat": model.invoke(PROMPT).content,
        "stream": "".join(chunk.content for chunk in model.stream(PROMPT)),
        "tool": [called["name"], called["args"]],
    }


def with_llama_index(url: str) -> Found:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        api_base=url,
        api_key=KEY,
        model=MODEL,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    tools = [FunctionTool.from_defaults(weather)]
    asked = model.chat_with_tools(tools, user_msg=WEATHER)
    call = model.get_tool_calls_from_response(asked)[0]
    return {
        "chat": model.chat([ChatMessage(role="user", content=PROMPT)]).message.content,
        "stream": "".join(part.delta or "" for part in model.stream_complete(PROMPT)),
        "tool": [call.tool_name, call.tool_kwargs],
    }


def with_pydantic_ai(url: str) -> Found:
    import asyncio

    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key=KEY))
    calls = list[object]()

    def recorded(city: str) -> str:
        calls.append(["weather", {"city": city}])
        return weather(city)

    agent = Agent(model)
    chat = agent.run_sync(PROMPT).output

    async def streamed() -> str:
        async with agent.run_stream(PROMPT) as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    stream = asyncio.run(streamed())
    helped = Agent(model)
    helped.tool_plain(name="weather")(recorded)
    helped.run_sync(WEATHER)
    return {"chat": chat, "stream": stream, "tool": calls[0]}


def with_instructor(url: str) -> Found:
    import instructor
    import openai
    from pydantic import BaseModel

    class Weather(BaseModel):
        city: str

    client = instructor.from_openai(openai.OpenAI(base_url=url, api_key=KEY, max_retries=0))
    messages = [{"role": "user", "content": WEATHER}]
    found = client.chat.completions.create(model=MODEL, messages=messages, response_model=Weather)
    parts = client.chat.completions.create_partial(
        model=MODEL, messages=messages, response_model=Weather
    )
    plain = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": PROMPT}], response_model=None
    )
    return {
        "chat": plain.choices[0].message.content,
        "stream": list(parts)[-1].city,
        "tool": ["Weather", found.model_dump()],
    }


def with_litellm(url: str) -> Found:
    import litellm

    options = {"model": f"openai/{MODEL}", "api_base": url, "api_key": KEY, "num_retries": 0}
    messages = [{"role": "user", "content": PROMPT}]
    chat = litellm.completion(messages=messages, **options)
    parts = litellm.completion(messages=messages, stream=True, **options)
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    asked = litellm.completion(messages=messages, tools=tools, **options)
    call = asked.choices[0].message.tool_calls[0].function
    return {
        "chat": chat.choices[0].message.content,
        "stream": "".join(part.choices[0].delta.content or "" for part in parts),
        "tool": [call.name, json.loads(call.arguments)],
    }


CLIENTS: dict[str, Callable[[str], Found]] = {
    "openai": with_openai,
    "langchain": with_langchain,
    "llama_index": with_llama_index,
    "pydantic_ai": with_pydantic_ai,
    "instructor": with_instructor,
    "litellm": with_litellm,
}

if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(CLIENTS[sys.argv[1]](sys.argv[2])))
