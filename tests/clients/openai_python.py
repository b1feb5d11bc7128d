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


# What the model of scripted_model.mjs says word for word; it is made where there is Node.js.
THOUGHT = "Hm, let me think."
WEATHER = {"city": {"type": "string"}, "days": {"type": "integer"}}
WEATHER_TOOL = {
    "name": "weather",
    "description": "tells the weather",
    "parameters": {"type": "object", "properties": WEATHER, "required": ["city", "days"]},
}
RESULTS = {"Paris": "sunny", "Rome": "rainy"}
SCRIPTS = {
    "greet": ("Hello, how are you?", [], None),
    "call one": ("", [{"days": 2, "city": "Paris"}], "It is sunny in Paris, 20 \u00b0C."),
    "call two": (
        "Let me see.",
        [{"days": 2, "city": "Paris"}, {"days": 1, "city": "Rome"}],
        "It is sunny in Paris and rainy in Rome.",
    ),
}


def written(calls):
    return [("weather", json.dumps(call, separators=(",", ":"))) for call in calls]


def converse(model, effort, conversation):
    """A chat completion's message, which must be the same when it is streamed."""
    request = {
        "model": model,
        "messages": conversation,
        "tools": [{"type": "function", "function": WEATHER_TOOL}],
        "reasoning_effort": effort,
    }
    choice = client.chat.completions.create(**request).choices[0]
    said = choice.message
    assert choice.finish_reason == ("tool_calls" if said.tool_calls else "stop"), choice
    assert (getattr(said, "reasoning", None) or "") == ("" if effort == "none" else THOUGHT), said
    text, thought, calls = "", "", []
    for chunk in client.chat.completions.create(stream=True, **request):
        delta = chunk.choices[0].delta
        text += delta.content or ""
        thought += getattr(delta, "reasoning", None) or ""
        for call in delta.tool_calls or []:
            if call.index == len(calls):
                calls.append([call.function.name, ""])
            calls[call.index][1] += call.function.arguments or ""
    assert text == (said.content or "")
    assert thought == (getattr(said, "reasoning", None) or "")
    assert [tuple(call) for call in calls] == calls_of(said)
    return said


def calls_of(message):
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or []]


def check_scripted_chat(model, effort):
    for asked, (text, calls, then) in SCRIPTS.items():
        begun = [{"role": "user", "content": asked}]
        answer = converse(model, effort, begun)
        assert (answer.content or "").strip() == text, answer
        assert calls_of(answer) == written(calls), answer
        if then is None:
            continue
        told = [
            {"role": "tool", "tool_call_id": call.id, "content": RESULTS[json.loads(call.function.arguments)["city"]]}
            for call in answer.tool_calls
        ]
        concluded = converse(model, effort, [*begun, answer, *told])
        assert concluded.content.removeprefix("As I thought: ") == then, concluded


def check_scripted_responses(model, effort):
    tools = [{"type": "function", "strict": False, **WEATHER_TOOL}]
    for asked, (text, calls, then) in SCRIPTS.items():
        request = {"model": model, "tools": tools, "reasoning": {"effort": effort}}
        begun = [{"role": "user", "content": asked}]
        answer = client.responses.create(input=begun, **request)
        events = list(client.responses.create(input=begun, stream=True, **request))
        live = events[-1].response
        for one in (answer, live):
            thoughts = [part.text for item in one.output if item.type == "reasoning" for part in item.summary]
            assert thoughts == ([] if effort == "none" else [THOUGHT]), one
            assert one.output_text.strip() == text, one
            acts = [item for item in one.output if item.type == "function_call"]
            assert [(act.name, act.arguments) for act in acts] == written(calls), one
        if then is None:
            continue
        told = [
            {"type": "function_call_output", "call_id": act.call_id, "output": RESULTS[json.loads(act.arguments)["city"]]}
            for act in acts
        ]
        concluded = client.responses.create(input=[*begun, *live.output, *told], **request)
        assert concluded.output_text.removeprefix("As I thought: ") == then, concluded


def check_scripted():
    for family in ("hermes", "llama", "mistral", "harmony", "jinja"):
        for effort in ("low", "none"):
            check_scripted_chat("scripted-" + family, effort)
            check_scripted_responses("scripted-" + family, effort)


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
    if os.environ.get("SCRIPTED"):
        check_scripted()
    check_embeddings()
    check_models_and_errors()
    check_abort()
    print("python3-openai: ok")
