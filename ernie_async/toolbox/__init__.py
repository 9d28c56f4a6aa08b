"""Functions that a model may call, and the loop that calls them until there is an answer.

See the guide "Tools".
"""

from ernie_async.toolbox.box import Toolbox, ToolEnded, ToolStarted
from ernie_async.toolbox.conversation import ToolRun, ToolStream

__all__ = ["ToolEnded", "ToolRun", "ToolStarted", "ToolStream", "Toolbox"]
