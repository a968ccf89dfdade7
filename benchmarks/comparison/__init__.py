"""Our policies beside other libraries': time and regret."""
