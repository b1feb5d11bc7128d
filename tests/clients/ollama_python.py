"""Debian's python3-ollama, unchanged, against the server that OLLAMA_HOST names."""

import os

import ollama

client = ollama.Client(host="http://" + os.environ["OLLAMA_HOST"])
BEGIN = ", there was a little girl named Lily. She loved to play outside in the park."

names = [model.get("name") or model.get("model") for model in client.list()["models"]]
assert "stories260k:latest" in names, names

whole = client.generate(model="stories260k", prompt="Once upon a time")
assert whole["response"].startswith(BEGIN), whole["response"]
streamed = "".join(
    part["response"] for part in client.generate(model="stories260k", prompt="Once upon a time", stream=True)
)
assert streamed == whole["response"]

messages = [{"role": "user", "content": "Once upon a time"}]
chat = client.chat(model="stories260k", messages=messages)["message"]["content"]
assert chat.startswith(BEGIN), chat
streamed = "".join(part["message"]["content"] for part in client.chat(model="stories260k", messages=messages, stream=True))
assert streamed == chat

# Thoughts, text and calls of a model that says them word for word (scripted_model.mjs), whole and
# streamed; and its answer to what the calls brought. It is made where there is Node.js.
THOUGHT = "Hm, let me think."
WEATHER = {"city": {"type": "string"}, "days": {"type": "integer"}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "tells the weather",
        "parameters": {"type": "object", "properties": WEATHER, "required": ["city", "days"]},
    },
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


def calls_of(message):
    return [(call["function"]["name"], list(call["function"]["arguments"].items())) for call in message.get("tool_calls") or []]


def converse(family, think, conversation):
    """The model's message, which must be the same when it is streamed."""
    request = {"model": "scripted-" + family, "messages": conversation, "tools": [TOOL], "think": think}
    said = client.chat(**request)["message"]
    assert (said.get("thinking") or "") == (THOUGHT if think else ""), said
    parts = [part["message"] for part in client.chat(stream=True, **request)]
    assert "".join(part.get("content") or "" for part in parts) == (said.get("content") or "")
    assert "".join(part.get("thinking") or "" for part in parts) == (said.get("thinking") or "")
    assert [call for part in parts for call in calls_of(part)] == calls_of(said)
    return said


if os.environ.get("SCRIPTED"):
    for family in ("hermes", "llama", "mistral", "harmony", "jinja"):
        for think in (True, False):
            for asked, (text, calls, then) in SCRIPTS.items():
                begun = [{"role": "user", "content": asked}]
                answer = converse(family, think, begun)
                assert (answer.get("content") or "").strip() == text, answer
                assert calls_of(answer) == [("weather", list(call.items())) for call in calls], answer
                if then is None:
                    continue
                told = [
                    {"role": "tool", "tool_name": "weather", "content": RESULTS[call["function"]["arguments"]["city"]]}
                    for call in answer["tool_calls"]
                ]
                concluded = converse(family, think, [*begun, answer, *told])
                # Versions that know of no tool_name leave it out.
                content = concluded["content"].replace("Somebody said: ", "")
                assert content == ("As I thought: " if think else "") + then, concluded

try:
    client.generate(model="missing", prompt="x")
except ollama.ResponseError as error:
    assert error.status_code == 404, error.status_code
else:
    raise AssertionError("a missing model is no error")
print("python3-ollama: ok")
