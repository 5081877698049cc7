"""The child program: mini-swe-agent as its package has it, wrapped by crabrt from the outside.

Nothing of mini-swe-agent is subclassed, patched or configured for crabrt: its DefaultAgent, its
litellm model class and its local environment are made as its own documentation makes them, and
three callables are wrapped: asking the model, executing a command, and the run as a whole. With
--plain even that is left out.
"""

import argparse
import json

import litellm  # noqa: F401 - imported first: it is what takes the time
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.local import LocalEnvironment
from minisweagent.exceptions import FormatError, InterruptAgentFlow, Submitted
from minisweagent.models.litellm_model import LitellmModel

# What commands see besides this process's environment: the same in every run.
COMMAND_ENV = {
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONDONTWRITEBYTECODE": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Agent",
    "GIT_AUTHOR_EMAIL": "agent@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "Agent",
    "GIT_COMMITTER_EMAIL": "agent@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


def conversation(messages):
    """What was said, without the clock readings and prices that mini-swe-agent adds."""
    return [
        [message["role"], message.get("content"), message.get("tool_calls")] for message in messages
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace")
    parser.add_argument("api_base")
    parser.add_argument("release", help="path of a file that one of the commands waits for")
    parser.add_argument("--plain", action="store_true", help="without crabrt")
    parser.add_argument("--resume", metavar="RUN")
    given = parser.parse_args()

    model = LitellmModel(
        model_name="openai/scripted",
        model_kwargs={"api_base": given.api_base, "api_key": "none", "max_retries": 0},
        cost_tracking="ignore_errors",
    )
    command_env = COMMAND_ENV | {"RELEASE": given.release}
    env = LocalEnvironment(cwd=given.workspace, env=command_env, timeout=100)

    def solve(task: str) -> dict:
        agent = DefaultAgent(
            model,
            env,
            system_template="You are a careful engineer.",
            instance_template="Please do this: {{task}}",
        )
        result = agent.run(task)
        return result | {"calls": agent.n_calls, "conversation": conversation(agent.messages)}

    task = "tidy up this project"
    if given.plain:
        result = solve(task)
    else:
        import crabrt  # noqa: PLC0415 - the plain run must not need it

        model.query = crabrt.model(raises=FormatError)(model.query)
        env.execute = crabrt.tool(raises=(Submitted, InterruptAgentFlow))(env.execute)
        guarded = crabrt.agent(workspace=given.workspace, name="mini")(solve)
        result = guarded.resume(given.resume) if given.resume else guarded(task)
    print("result", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
