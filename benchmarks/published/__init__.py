"""Published systems by our cost model: predicted against what their authors measured."""
