"""Debian's python3-openai, unchanged, against the server that OLLAMA_HOST names."""

import json
import os
import urllib.request

import openai

HOST = "http://" + os.environ["OLLAMA_HOST"]
KEY = os.environ.get("API_KEY")
client = openai.OpenAI(base_url=HOST + "/v1", api_key=KEY or "any", max_retries=0)
PROMPT = "Once upon a time"
MESSAGES = [{"role": "user", "content": PROMPT}]
GREEDY = {"model": "stories260k", "temperature": 0}


def expect_error(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def told_natively():
    """What the bundled model tells, as the server's own API has it: the other APIs give the same."""
    body = {"model": "stories260k", "prompt": PROMPT, "stream": False, "options": {"temperature": 0}}
    with urllib.request.urlopen(HOST + "/api/generate", json.dumps(body).encode()) as answer:
        return json.load(answer)["response"]


def check_texts():
    story = told_natively()
    chat = client.chat.completions.create(messages=MESSAGES, **GREEDY)
    assert chat.choices[0].message.content == story, chat
    assert chat.choices[0].finish_reason == "length"
    chunks = client.chat.completions.create(messages=MESSAGES, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == story

    completion = client.completions.create(prompt=PROMPT, **GREEDY)
    assert completion.choices[0].text == story, completion
    chunks = client.completions.create(prompt=PROMPT, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in chunks) == story

    response = client.responses.create(input=PROMPT, **GREEDY)
    assert response.output_text == story, response
    events = list(client.responses.create(input=PROMPT, stream=True, **GREEDY))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == story
    assert events[-1].response.output_text == story


def check_format_and_tools():
    properties = {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}
    schema = {"type": "object", "properties": properties, "required": ["city", "days"], "additionalProperties": False}

    def check(text):
        value = json.loads(text)
        assert value["city"] in ("Paris", "Rome") and value["days"] in range(1, 10), value

    described = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}}
    formatted = client.chat.completions.create(
        messages=MESSAGES, max_tokens=500, response_format=described, **GREEDY
    ).choices[0]
    assert formatted.finish_reason == "stop"
    check(formatted.message.content)

    tool = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    asking = {"model": "tools", "temperature": 0, "max_tokens": 500, "tools": [tool]}
    called = client.chat.completions.create(messages=MESSAGES, tool_choice="required", **asking).choices[0]
    assert called.finish_reason == "tool_calls"
    call = called.message.tool_calls[0]
    assert call.function.name == "weather"
    check(call.function.arguments)
    told = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answered = client.chat.completions.create(
        messages=[*MESSAGES, called.message, told], tool_choice="none", **asking
    ).choices[0]
    assert not answered.message.tool_calls


def check_embeddings():
    embedded = client.embeddings.create(model="bert", input=["a cat", "a dog"])
    plain = client.embeddings.create(model="bert", input="a dog", encoding_format="float")
    for one, other in zip(embedded.data[1].embedding, plain.data[0].embedding, strict=True):
        assert abs(one - other) < 1e-6


def check_models_and_errors():
    assert "stories260k:latest" in [model.id for model in client.models.list()]
    assert client.models.retrieve("stories260k").owned_by == "library"
    missing = expect_error(
        openai.NotFoundError, lambda: client.chat.completions.create(model="missing", messages=MESSAGES)
    )
    assert "model 'missing' not found" in missing.message
    expect_error(openai.BadRequestError, lambda: client.chat.completions.create(messages=[], **GREEDY))


def check_abort():
    stream = client.chat.completions.create(
        model="endless", messages=MESSAGES, temperature=0, max_tokens=10_000_000, stream=True
    )
    next(iter(stream))
    stream.close()


if KEY:
    client.models.list()
    stranger = openai.OpenAI(base_url=HOST + "/v1", api_key="wrong", max_retries=0)
    expect_error(openai.AuthenticationError, stranger.models.list)
    print("python3-openai, with a key: ok")
else:
    check_texts()
    check_format_and_tools()
    check_embeddings()
    check_models_and_errors()
    check_abort()
    print("python3-openai: ok")
