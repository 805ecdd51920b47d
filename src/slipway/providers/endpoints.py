"""Well-known providers that speak OpenAI's protocol, so that `--model NAME/MODEL` or `provider:
NAME` needs no address.

A row holds the API's base URL and the environment variable that people keep its key in (None: it
needs no key).
"""

from typing import Any

from slipway.settings import Endpoint

ENDPOINTS: dict[str, Endpoint] = {
    "openai": Endpoint("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": Endpoint("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "dashscope": Endpoint("https://dashscope.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "dashscope-intl": Endpoint(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"
    ),
    "deepseek": Endpoint("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "gemini": Endpoint("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "groq": Endpoint("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Endpoint("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "moonshot": Endpoint("https://api.moonshot.cn/v1", "MOONSHOT_API_KEY"),
    "openrouter": Endpoint("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "siliconflow": Endpoint("https://api.siliconflow.cn/v1", "SILICONFLOW_API_KEY"),
    "together": Endpoint("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "xai": Endpoint("https://api.x.ai/v1", "XAI_API_KEY"),
    "zhipu": Endpoint("https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY"),
    "lmstudio": Endpoint("http://127.0.0.1:1234/v1", None),
    "ollama": Endpoint("http://127.0.0.1:11434/v1", None),
    "vllm": Endpoint("http://127.0.0.1:8000/v1", None),
}

# The fields that a provider needs to continue an unfinished turn: (in the turn's message, in the
# request). Others take the turn as it is.
PREFILLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dashscope": ({"partial": True}, {}),
    "dashscope-intl": ({"partial": True}, {}),
    "deepseek": ({"prefix": True}, {}),  # at https://api.deepseek.com/beta
    "mistral": ({"prefix": True}, {}),
    "moonshot": ({"partial": True}, {}),
    "vllm": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
}
