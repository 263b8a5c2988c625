"""The official SDK of OpenAI for Python, through the gateway. Prints what came of each call as one document."""
import json
import sys

import openai

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key)
messages = [{"role": "user", "content": "Say hello."}]
said = {}


def failure(call):
    try:
        call()
    except openai.APIStatusError as error:
        return {"kind": type(error).__name__, "status": error.status_code, "code": error.code}
    return None


chat = client.chat.completions.create(model="gpt-5-mini", messages=messages, max_tokens=20)
said["chat"] = {"text": chat.choices[0].message.content, "output": chat.usage.completion_tokens}

stream = client.chat.completions.create(model="gpt-5-mini", messages=messages, max_tokens=20, stream=True)
chunks = list(stream)
said["stream"] = {
    "text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
    "usage": any(chunk.usage for chunk in chunks),
    "finish": [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1],
}

stream = client.chat.completions.create(
    model="gpt-5-mini", messages=messages, max_tokens=20, stream=True, stream_options={"include_usage": True}
)
said["stream_with_usage"] = [chunk.usage.completion_tokens for chunk in stream if chunk.usage]

embeddings = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
said["embeddings"] = [len(one.embedding) for one in embeddings.data]

response = client.responses.create(model="gpt-5-mini", input="Say hello.", max_output_tokens=20)
said["responses"] = response.output_text

said["refused"] = failure(lambda: client.chat.completions.create(model="tiny", messages=messages, max_tokens=500))
said["broken"] = failure(lambda: client.chat.completions.create(model="breaks", messages=messages, max_tokens=20))
said["again"] = [
    client.chat.completions.create(model="again", messages=messages, max_tokens=20).usage.completion_tokens
    for _ in range(2)
]
stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="nobody")
said["stranger"] = failure(lambda: stranger.chat.completions.create(model="gpt-5-mini", messages=messages))
print(json.dumps(said))
