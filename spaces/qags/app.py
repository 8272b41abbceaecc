from quals_metric.app import serve

serve("qags", host="0.0.0.0")
